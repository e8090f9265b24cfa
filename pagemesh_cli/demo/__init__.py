"""`pagemesh demo`: the whole way of one document, from file to bill, on a stack of its own."""
