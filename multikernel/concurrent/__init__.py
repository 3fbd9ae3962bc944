"""Drop-ins for `multiprocessing` and `concurrent.futures`, over the rings: Pipe, Queue, SimpleQueue, CoreExecutor."""
