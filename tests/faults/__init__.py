"""The fault suite: planted mistakes and healthy pairs, and whether the bisection tells them apart. `make faults`."""
