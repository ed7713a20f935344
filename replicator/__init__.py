"""The data plane: whatever reads a log and writes elsewhere. Links, the node daemon, verification."""
