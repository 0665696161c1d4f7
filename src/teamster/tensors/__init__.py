# SPDX-License-Identifier: BSD-3-Clause
"""The lowest place that imports torch: tensors inside of containers, and names of devices."""
