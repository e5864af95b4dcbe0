#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
bats_require_minimum_version 1.5.0

setup() {
	cd "$BATS_TEST_DIRNAME/../.." || return
	tmp=$BATS_TEST_TMPDIR
}

@test "install-deps is silent when nothing is missing" {
	run tools/install-deps
	[ "$status" -eq 0 ]
	[ -z "$output" ]
}

@test "install-deps refuses what it does not know" {
	run tools/install-deps everything
	[ "$status" -eq 2 ]
}

@test "sandbox explains itself" {
	run tools/sandbox --help
	[ "$status" -eq 0 ]
	[[ $output == *"sandbox up DIR PARTY"* ]]
	run tools/sandbox explode
	[ "$status" -eq 2 ]
}

@test "sandbox does not touch a directory that is not its own" {
	mkdir "$tmp/mine"
	echo precious >"$tmp/mine/file"
	run tools/sandbox up "$tmp/mine" 1 2
	[ "$status" -eq 1 ]
	[[ $output == *"not empty"* ]]
	[ "$(cat "$tmp/mine/file")" = precious ]
}

@test "sandbox down where none is does nothing" {
	run tools/sandbox down "$tmp/none"
	[ "$status" -eq 0 ]
	[ ! -e "$tmp/none" ]
}

@test "an unknown build variant is an error with the list of valid ones" {
	run make V=nonsense help
	[ "$status" -ne 0 ]
	[[ $output == *"release, asan, tsan or cov"* ]]
}

@test "help lists every documented target" {
	run make help
	[ "$status" -eq 0 ]
	for t in all demo check lint bench install clean; do
		[[ $output == *"$t "* ]]
	done
}

@test "layers hold, and a wrong include is named with its line" {
	mkdir -p "$tmp/t/tools" "$tmp/t/lib" "$tmp/t/fs" "$tmp/t/transfer" \
		"$tmp/t/scheduler" "$tmp/t/components"
	cp tools/check-layers.sh "$tmp/t/tools/"
	run tools/check-layers.sh
	[ "$status" -eq 0 ]
	printf '/* x */\n#include "fs/node.h"\n' >"$tmp/t/lib/x.c"
	cd "$tmp/t"
	run tools/check-layers.sh
	[ "$status" -eq 1 ]
	[[ $output == *"lib/x.c:2: lib/ may not include fs/node.h"* ]]
}

@test "bench refuses an unknown part" {
	run tools/bench weather
	[ "$status" -ne 0 ]
	[[ $output == *"crypto, transfer, tables, jobs"* ]]
}

@test "rollfs-pki makes certificates with the party in the URI and private keys" {
	tools/rollfs-pki ca "$tmp/pki" demo
	tools/rollfs-pki party "$tmp/pki" demo 9999
	run openssl x509 -in "$tmp/pki/9999.pem" -noout -ext subjectAltName
	[[ $output == *"URI:rollfs://demo/party/9999"* ]]
	[ "$(stat -c %a "$tmp/pki/9999.key")" = 600 ]
	openssl verify -CAfile "$tmp/pki/ca.pem" "$tmp/pki/9999.pem"
}

@test "rollfs-pki replaces no authority and refuses what is no party" {
	tools/rollfs-pki ca "$tmp/pki" demo
	before=$(cat "$tmp/pki/ca.pem")
	run tools/rollfs-pki ca "$tmp/pki" demo
	[ "$status" -eq 1 ]
	[ "$(cat "$tmp/pki/ca.pem")" = "$before" ]
	for id in 0 12345678901 a ../x ""; do
		run tools/rollfs-pki party "$tmp/pki" demo "$id"
		[ "$status" -eq 1 ]
	done
	run tools/rollfs-pki party "$tmp/pki" "de mo" 1
	[ "$status" -eq 1 ]
	run tools/rollfs-pki party "$tmp/other" demo 1
	[ "$status" -eq 1 ]
	[[ $output == *"no ca.key"* ]]
	run tools/rollfs-pki --help
	[ "$status" -eq 0 ]
	run tools/rollfs-pki party
	[ "$status" -eq 2 ]
}

@test "rollfs-pki puts given hosts into the certificate" {
	tools/rollfs-pki ca "$tmp/pki" demo
	tools/rollfs-pki party "$tmp/pki" demo 7 example.org 10.0.0.1 ::1
	run openssl x509 -in "$tmp/pki/7.pem" -noout -ext subjectAltName
	[[ $output == *"DNS:localhost, IP Address:127.0.0.1, DNS:example.org, IP Address:10.0.0.1, IP Address:0:0:0:0:0:0:0:1"* ]]
}

@test "a release has no hooks, where other builds have them" {
	sources=$(grep -lE 'ROLLFS_(TEST_)?HOOK' ./*/*.c ./components/*/*.c)
	[ -n "$sources" ]
	for o in $(echo "$sources" | sed 's,^\./\(.*\)c$,\1o,'); do
		env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -s V=release "build/release/$o"
		run grep -c ROLLFS_HOOK "build/release/$o"
		[ "$output" = 0 ]
	done
	run grep -c ROLLFS_HOOK "$B/rollsite"
	[ "$output" != 0 ]
}

@test "a name that no test has fails, and nothing runs" {
	run tests/run unit/test_csv unit/test_nothing mount/test_none.py
	[ "$status" -eq 2 ]
	[[ $output == *"the name mount/test_none.py, unit/test_nothing;"* ]]
	[[ $output != *passed* ]]
}

# A repository of a program that says its version and a test that does not.
version_repo() {
	mkdir -p "$tmp"/repo/{fs,lib,scheduler,transfer,tests/unit}
	cp Makefile "$tmp/repo"
	cp lib/version.[ch] "$tmp/repo/lib"
	cd "$tmp/repo" || return
	cat >fs/main.c <<-'EOF'
		#include <stdio.h>
		#include "lib/version.h"
		int main(void)
		{
			return puts(rollfs_version()) < 0;
		}
	EOF
	echo 'int main(void) { return 0; }' >tests/unit/test_none.c
	for d in fs lib scheduler transfer; do echo 'extern int none;' >$d/none.c; done
	echo /build >.gitignore
	git init -q . && git add . && commit one
}

commit() {
	git -c user.name=x -c user.email=x@x commit -q --allow-empty -m "$1"
}

# Not as a part of the make that runs this.
build() {
	env -i PATH="$PATH" ROLLFS_DEPS=ok make build/release/rollfs build/release/tests/unit/test_none
}

@test "a build after a commit is of that commit, and links no test again" {
	version_repo
	build
	[ "$(build/release/rollfs)" = "$(git describe --always)" ]
	before=$(stat -c "%i %y" build/release/tests/unit/test_none)
	commit two
	build
	[ "$(build/release/rollfs)" = "$(git describe --always)" ]
	[ "$(stat -c "%i %y" build/release/tests/unit/test_none)" = "$before" ]
}

@test "a build when nothing has changed makes nothing" {
	version_repo
	build
	run build
	[ "$status" -eq 0 ]
	[[ $output != *" -o "* ]]
}
