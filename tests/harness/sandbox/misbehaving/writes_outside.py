# outcome: exception
def add(a, b):
    with open("OUTSIDE/written", "w") as file:
        file.write("x")
    return a + b
