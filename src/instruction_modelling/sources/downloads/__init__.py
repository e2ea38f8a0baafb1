"""Files from the network: found, fetched, checked, unpacked."""
