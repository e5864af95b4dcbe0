// SPDX-License-Identifier: Apache-2.0
#include "transfer/transfer.h"

char *transfer_socket_path(const char *state)
{
	return xasprintf("%s/rollsite.sock", state);
}
