-- A clock, in Python: `couatl sql --file examples/clock.sql`. Each row is there the moment it is yielded.

CREATE OR REPLACE EXTERNAL STREAM py_clock (tick uint32, label string)
AS $$
import time

def py_clock():
    n = 0
    while True:
        yield (n, "tick")
        n += 1
        time.sleep(1)
$$
SETTINGS type = 'python', mode = 'streaming';

-- The generator never ends, and LIMIT stops it. Without one, Ctrl-C does.
SELECT tick, label FROM py_clock LIMIT 5;
