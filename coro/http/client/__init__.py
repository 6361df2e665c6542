"""An HTTP/1.1 client: connections that are kept, redirects, streaming both ways. All its names are in `coro.http`."""
