"""The nouns: event, log, topology, decisions; the ports; the stores; the client that applications use."""
