"""``make bench``: what a track costs, beside the limit, the tutorial and other tools. docs/performance.md explains it.

``scale``, ``material``, ``measurement``, ``warm`` and ``rounds`` are how it is measured; ``limit``, ``tutorial``,
``embedded``, ``peers``, ``kafka`` and ``start`` what; ``findings``, ``table`` and ``chart`` what comes of it.

Peers run parts of this package in virtual environments of their own, so nothing outside the standard library is
imported here.
"""
