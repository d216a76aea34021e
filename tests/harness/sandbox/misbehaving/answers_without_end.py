# outcome: memory timeout
def add(a, b):
    while True:
        yield a + b
