"""The gateway's view of the results topic, in one SQLite file. Delete the file, and it fills again from the topic."""
