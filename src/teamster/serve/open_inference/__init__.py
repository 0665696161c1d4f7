# SPDX-License-Identifier: BSD-3-Clause
"""The Open Inference Protocol (version 2) over HTTP.

Clients of Triton, KServe and MLServer speak it.

::

    routes --path--> rows: body --messages, tensors--> inputs, a row each --> ... --> answer

Source: https://github.com/kserve/open-inference-protocol, and the binary tensor data extension in
Triton's documentation.
"""
