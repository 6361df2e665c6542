"""What coro costs beside its peers, measured on the reader's own machine: `make bench`."""
