"""``tonestream watch``: new music in a folder, as soon as it is wholly there."""
