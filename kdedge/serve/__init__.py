"""An HTTP server for a bundle: `kdedge serve`. Needs the extra `serve`."""
