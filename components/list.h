/* SPDX-License-Identifier: Apache-2.0 */
/* Every component, sorted. */
COMPONENT(data_transform)
COMPONENT(evaluation)
COMPONENT(federated_sample)
COMPONENT(hetero_data_split)
COMPONENT(hetero_lr)
COMPONENT(intersection)
COMPONENT(reader)
COMPONENT(secure_add_example)
