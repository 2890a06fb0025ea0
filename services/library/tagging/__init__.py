"""Writes answers into the tags of music files, and takes them back.

``rules`` and ``answers`` decide what is worth writing. ``formats`` knows the tags of each kind of file. ``plan`` says
what would change, ``apply`` does it, ``journal`` remembers it and ``undo`` takes it back. Only ``formats`` imports
mutagen, and only when a file is opened.
"""
