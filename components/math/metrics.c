// SPDX-License-Identifier: Apache-2.0
#include "components/math/metrics.h"

#include <math.h>

static int descending(const void *a, const void *b)
{
	const struct scored *x = a, *y = b;

	return (x->score < y->score) - (x->score > y->score);
}

void metric_sort(struct scored *v, size_t n)
{
	if (n)
		qsort(v, n, sizeof(*v), descending);
}

/* The first row behind i that has another score. */
static size_t run_end(const struct scored *v, size_t n, size_t i)
{
	size_t k = i;

	while (k < n && v[k].score == v[i].score)
		k++;
	return k;
}

static uint64_t count_positive(const struct scored *v, size_t n)
{
	uint64_t pos = 0;

	for (size_t i = 0; i < n; i++)
		pos += v[i].positive;
	return pos;
}

double metric_auc(const struct scored *v, size_t n)
{
	uint64_t all = count_positive(v, n), neg = n - all, above = 0;
	double pairs = 0;

	if (!all || !neg)
		return NAN;
	for (size_t i = 0, end; i < n; i = end) {
		uint64_t pos;

		end = run_end(v, n, i);
		pos = count_positive(v + i, end - i);
		pairs +=
		    (double)(end - i - pos) * ((double)above + (double)pos / 2);
		above += pos;
	}
	return pairs / ((double)all * (double)neg);
}

void metric_confusion(const struct scored *v, size_t n,
		      const double *thresholds, size_t k, struct confusion *ret)
{
	_cleanup_free_ uint64_t *pos = xcalloc(n + 1, sizeof(*pos));

	for (size_t i = 0; i < n; i++)
		pos[i + 1] = pos[i] + v[i].positive;
	for (size_t j = 0; j < k; j++) {
		size_t low = 0, high = n; /* rows before low are above */

		while (low < high) {
			size_t mid = low + (high - low) / 2;

			if (v[mid].score > thresholds[j])
				low = mid + 1;
			else
				high = mid;
		}
		ret[j].threshold = thresholds[j];
		ret[j].tp = pos[low];
		ret[j].fp = low - pos[low];
		ret[j].fn = pos[n] - pos[low];
		ret[j].tn = n - low - ret[j].fn;
	}
}

static double ratio(uint64_t a, uint64_t b)
{
	return b ? (double)a / (double)b : NAN;
}

double confusion_tpr(const struct confusion *c)
{
	return ratio(c->tp, c->tp + c->fn);
}

double confusion_fpr(const struct confusion *c)
{
	return ratio(c->fp, c->fp + c->tn);
}

double confusion_precision(const struct confusion *c)
{
	return c->tp + c->fp ? ratio(c->tp, c->tp + c->fp) : 1;
}

double confusion_accuracy(const struct confusion *c)
{
	return ratio(c->tp + c->tn, c->tp + c->fp + c->fn + c->tn);
}

double confusion_f1(const struct confusion *c)
{
	return ratio(2 * c->tp, 2 * c->tp + c->fp + c->fn);
}

/* The same table with class 0 as the one that is looked for. */
static struct confusion of_class(const struct confusion *c, bool positive)
{
	struct confusion other = { .threshold = c->threshold,
				   .tp = c->tn,
				   .fp = c->fn,
				   .fn = c->fp,
				   .tn = c->tp };

	return positive ? *c : other;
}

double confusion_share(const struct confusion *c, bool positive)
{
	struct confusion k = of_class(c, positive);

	return ratio(k.tp + k.fp, k.tp + k.fp + k.fn + k.tn);
}

double confusion_lift(const struct confusion *c, bool positive)
{
	struct confusion k = of_class(c, positive);
	double base = ratio(k.tp + k.fn, k.tp + k.fp + k.fn + k.tn);

	return base > 0 ? confusion_precision(&k) / base : NAN;
}

double confusion_gain(const struct confusion *c, bool positive)
{
	struct confusion k = of_class(c, positive);

	return confusion_tpr(&k);
}

static double largest_gap(const struct confusion *c, size_t k)
{
	double best = 0;

	for (size_t i = 0; i < k; i++)
		best = fmax(best, confusion_tpr(&c[i]) - confusion_fpr(&c[i]));
	return best;
}

size_t metric_cuts(const struct scored *v, size_t n, double ret[METRIC_CUTS])
{
	if (!n)
		return 0;
	for (size_t c = 0; c < METRIC_CUTS; c++)
		ret[c] = v[n * c / METRIC_CUTS].score;
	return METRIC_CUTS;
}

double metric_ks(const struct scored *v, size_t n)
{
	struct confusion c[METRIC_CUTS];
	uint64_t pos = count_positive(v, n);
	double at[METRIC_CUTS];
	size_t k = metric_cuts(v, n, at);

	if (!pos || pos == n)
		return NAN;
	metric_confusion(v, n, at, k, c);
	return largest_gap(c, k);
}

double metric_ks_exact(const struct scored *v, size_t n)
{
	uint64_t all = count_positive(v, n), pos = 0;
	double best = 0;

	if (!all || all == n)
		return NAN;
	for (size_t i = 0, end; i < n; i = end) {
		end = run_end(v, n, i);
		pos += count_positive(v + i, end - i);
		best = fmax(best, (double)pos / (double)all -
				      (double)(end - pos) / (double)(n - all));
	}
	return best;
}

/* The different scores, descending; caller frees. */
static double *unique(const struct scored *v, size_t n, size_t *ret_n)
{
	double *u = xcalloc(n + 1, sizeof(*u));

	*ret_n = 0;
	for (size_t i = 0; i < n; i = run_end(v, n, i))
		u[(*ret_n)++] = v[i].score;
	return u;
}

size_t metric_steps(const struct scored *v, size_t n,
		    double ret[METRIC_CUTS + 1])
{
	_cleanup_free_ double *u = NULL;
	size_t k;

	if (!n)
		return 0;
	u = unique(v, n, &k);
	for (size_t c = 0; c < METRIC_CUTS; c++)
		ret[c] = u[k * c / METRIC_CUTS];
	ret[METRIC_CUTS] = u[k - 1] - 0.001;
	return METRIC_CUTS + 1;
}

size_t metric_fixed(double ret[METRIC_CUTS])
{
	for (size_t c = 0; c < METRIC_CUTS; c++)
		ret[c] = (double)c / 100;
	return METRIC_CUTS;
}

size_t metric_quantiles(const struct scored *v, size_t n,
			double ret[METRIC_QUANTILES])
{
	if (!n)
		return 0;
	for (size_t q = 0; q < METRIC_QUANTILES; q++) {
		/* nearest rank of ascending scores */
		size_t rank = ((n - 1) * q + 10) / 20;

		ret[q] = v[n - 1 - rank].score;
	}
	return METRIC_QUANTILES;
}

/* Is b no corner between a and c? */
static bool straight(const struct confusion *a, const struct confusion *b,
		     const struct confusion *c)
{
	double x1 = (double)b->fp - (double)a->fp;
	double y1 = (double)b->tp - (double)a->tp;
	double x2 = (double)c->fp - (double)b->fp;
	double y2 = (double)c->tp - (double)b->tp;

	return x1 * y2 == x2 * y1;
}

size_t metric_roc(const struct scored *v, size_t n, double ret[METRIC_CUTS + 1])
{
	_cleanup_free_ struct confusion *c = NULL;
	_cleanup_free_ double *u = NULL;
	size_t k, corners = 0, m;

	if (!n)
		return 0;
	u = unique(v, n, &k);
	u[k] = u[k - 1] - 0.001; /* there is room for it: (1, 1) */
	k++;
	c = xcalloc(k, sizeof(*c));
	metric_confusion(v, n, u, k, c);
	for (size_t i = 0; i < k; i++)
		if (i == 0 || i == k - 1 ||
		    !straight(&c[corners - 1], &c[i], &c[i + 1]))
			c[corners++] = c[i];
	m = MIN(corners - 1, (size_t)METRIC_CUTS);
	for (size_t i = 0; i < m; i++)
		ret[i] = c[(corners - 1) * i / m].threshold;
	ret[m] = c[corners - 1].threshold;
	return m + 1;
}

static int ascending(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static double median(double *v, size_t n)
{
	qsort(v, n, sizeof(*v), ascending);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

void metric_regression(const double *y, const double *p, size_t n,
		       struct regression *ret)
{
	_cleanup_free_ double *gap = xcalloc(n + 1, sizeof(*gap));
	double y_mean = 0, d_mean = 0, y_ss = 0, d_ss = 0, d_var = 0;
	bool constant = true;

	*ret = (struct regression){ NAN, NAN, NAN, NAN, NAN, NAN };
	if (!n)
		return;
	for (size_t i = 0; i < n; i++) {
		y_mean += y[i] / (double)n;
		d_mean += (y[i] - p[i]) / (double)n;
		constant = constant && y[i] == y[0];
	}
	ret->mae = 0;
	for (size_t i = 0; i < n; i++) {
		double d = y[i] - p[i];

		gap[i] = fabs(d);
		ret->mae += gap[i] / (double)n;
		d_ss += d * d;
		d_var += (d - d_mean) * (d - d_mean);
		y_ss += (y[i] - y_mean) * (y[i] - y_mean);
	}
	ret->mse = d_ss / (double)n;
	ret->rmse = sqrt(ret->mse);
	ret->median_ae = median(gap, n);
	if (constant)
		return; /* a mean of equal values need not be exact */
	ret->r2 = 1 - d_ss / y_ss;
	ret->explained_variance = 1 - d_var / y_ss;
}
