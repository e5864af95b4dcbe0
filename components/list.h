/* SPDX-License-Identifier: Apache-2.0 */
/* Every component, sorted. */
COMPONENT(data_transform)
COMPONENT(evaluation)
COMPONENT(hetero_lr)
COMPONENT(intersection)
COMPONENT(reader)
COMPONENT(secure_add_example)
