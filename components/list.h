/* SPDX-License-Identifier: Apache-2.0 */
/* Every component, sorted. */
COMPONENT(data_transform)
COMPONENT(evaluation)
COMPONENT(feature_scale)
COMPONENT(federated_sample)
COMPONENT(hetero_data_split)
COMPONENT(hetero_linr)
COMPONENT(hetero_lr)
COMPONENT(hetero_poisson)
COMPONENT(intersection)
COMPONENT(model_loader)
COMPONENT(reader)
COMPONENT(secure_add_example)
