#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Which folder may include what (docs/architecture.md, "Houses").  Prints
# file:line and the header that may not be there.
allowed() {
	case $1 in
	lib) echo "lib" ;;
	transfer) echo "lib transfer" ;;
	components) echo "lib transfer/channel.h components" ;;
	scheduler) echo "lib transfer/transfer.h scheduler" ;;
	fs) echo "lib transfer/transfer.h scheduler/scheduler.h scheduler/model.h fs" ;;
	tools) echo "lib components/crypto transfer/channel.h transfer/transfer.h tools" ;;
	esac
}

bad=$(
	for d in lib transfer components scheduler fs tools; do
		ok=" $(allowed "$d") "
		find "$d" -name '*.[ch]' -exec \
			grep -Hn '^[[:space:]]*#[[:space:]]*include "' {} + |
			while IFS=: read -r file line text; do
				h=${text#*\"}
				h=${h%%\"*}
				case $ok in
				*" $h "* | *" ${h%%/*} "* | *" ${h%/*} "*) continue ;;
				esac
				echo "$file:$line: $d/ may not include $h"
			done
	done
	# The table store is the only code that knows RocksDB.
	grep -rn --include='*.[ch]' '#include <rocksdb' lib transfer \
		components scheduler fs tools | grep -v '^lib/table' |
		sed 's/$/  (only lib\/table*.c may)/'
	# A folder's private header is its own.
	for d in lib transfer components scheduler fs tools; do
		grep -rn --include='*.[ch]' '#include ".*_priv\.h"' "$d" |
			grep -v "#include \"$d/"
	done
)
[ -z "$bad" ] || {
	echo "$bad"
	exit 1
}
