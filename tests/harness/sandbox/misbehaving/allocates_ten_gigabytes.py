# outcome: memory
def add(a, b):
    return bytearray(10 << 30)
