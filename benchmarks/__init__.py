# SPDX-License-Identifier: BSD-3-Clause
"""Speed, shown side by side with the peers in one run."""
