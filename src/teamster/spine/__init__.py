# SPDX-License-Identifier: BSD-3-Clause
"""What every job stands on: plan -> workers -> transport -> trace.

Everything in here is internal.
"""
