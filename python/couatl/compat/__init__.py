"""Connectors written for other systems, as they are.

One module for each model that is recognised: its base classes under their own names, for a program that changes only
an import, and ``as_source`` and ``as_sink``, which turn a class of the model, the library's own or ours, into a
:class:`couatl.sources.Source` or a :class:`couatl.sinks.Sink`. No module here imports the library whose model it is.
"""
