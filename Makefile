# One Makefile, no recursion; `make help` lists targets, config.mk holds local knobs.
ifeq ($(origin CC),default)
CC := gcc
endif
PYTHON ?= /usr/bin/python3
V      ?= release
B      := build/$(V)
