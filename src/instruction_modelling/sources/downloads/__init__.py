"""Downloads: files from the network, found, fetched, checked and unpacked."""
