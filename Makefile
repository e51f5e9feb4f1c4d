# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0

# Thin calls: what each does is in scripts/ or in the package.

.PHONY: build test check format clean

build:
	swift build -c release

test:
	swift test -c release --disable-testable-imports

check:
	scripts/check

format:
	swift format --in-place --parallel --recursive Package.swift Sources Tests Examples Benchmarks

clean:
	swift package clean
