"""The studio: an HTTP service and a web page over every model that `suffuse.load` opens."""
