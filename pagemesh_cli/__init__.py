"""The `pagemesh` command: the stack on one machine, and the client verbs that go through its edge."""
