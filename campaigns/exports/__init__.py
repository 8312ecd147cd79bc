"""Contacts, deliveries and runs as files: CSV for people and spreadsheets, JSON lines for programs.

A file is streamed: rows are read in pieces by their ids, each piece a statement of its own. No transaction and no
cursor is open between two pieces, however slowly somebody takes them, and memory does not grow with the file. What is
written while it goes out may be in it or not; what was there at its beginning and stays is in it once.
"""
