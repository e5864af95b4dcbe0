/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures of predictions.  A row is predicted positive when its score is
 * strictly above the threshold; rows of one score are never told apart.  What
 * the data leave undefined (one class only, no variance) is NaN.
 */
#ifndef COMPONENTS_MATH_METRICS_H
#define COMPONENTS_MATH_METRICS_H

#include "lib/base.h"

struct scored {
	double score;
	bool positive;
};

/* Descending by score: what all functions below expect. */
void metric_sort(struct scored *v, size_t n);

/* Probability that a positive row scores above a negative one, ties half. */
double metric_auc(const struct scored *v, size_t n);
/* Largest TPR - FPR: over the scores at places n c / 100, c = 0..99, of the
 * sorted rows (FATE's), and over all scores. */
double metric_ks(const struct scored *v, size_t n);
double metric_ks_exact(const struct scored *v, size_t n);

struct confusion {
	double threshold;
	uint64_t tp, fp, fn, tn;
};
double confusion_tpr(const struct confusion *c); /* recall */
double confusion_fpr(const struct confusion *c);
/* 1 when nothing is predicted positive. */
double confusion_precision(const struct confusion *c);
double confusion_accuracy(const struct confusion *c);
double confusion_f1(const struct confusion *c);
/* Of class 1, or (the same for those not above the threshold) of class 0:
 * share of rows predicted so, lift and gain. */
double confusion_share(const struct confusion *c, bool positive);
double confusion_lift(const struct confusion *c, bool positive);
double confusion_gain(const struct confusion *c, bool positive);

/* One confusion for each of k thresholds, in their order. */
void metric_confusion(const struct scored *v, size_t n,
		      const double *thresholds, size_t k,
		      struct confusion *ret);

#define METRIC_CUTS	 100
#define METRIC_QUANTILES 21
/* Thresholds; the number of them (at most the size of ret, 0 without rows).
 * cuts: as in metric_ks; steps: places u c / 100 of the u different scores,
 * and one below all; fixed: 0, .01 ... .99; quantiles: 0, .05 ... 1. */
size_t metric_cuts(const struct scored *v, size_t n, double ret[METRIC_CUTS]);
size_t metric_steps(const struct scored *v, size_t n,
		    double ret[METRIC_CUTS + 1]);
size_t metric_fixed(double ret[METRIC_CUTS]);
size_t metric_quantiles(const struct scored *v, size_t n,
			double ret[METRIC_QUANTILES]);
/* Corners of the ROC curve, at most METRIC_CUTS and the last, (1, 1). */
size_t metric_roc(const struct scored *v, size_t n,
		  double ret[METRIC_CUTS + 1]);

struct regression {
	double mae, mse, rmse, median_ae, r2, explained_variance;
};
/* y = true, p = predicted. */
void metric_regression(const double *y, const double *p, size_t n,
		       struct regression *ret);

#endif
