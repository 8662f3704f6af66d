"""What differs between kinds of learning: one file a task, each meeting the same interface."""
