"""The control plane and the operator's front: playbooks, operations, the local chain, the command line."""
