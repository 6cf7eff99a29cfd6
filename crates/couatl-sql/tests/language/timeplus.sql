-- The statements of Timeplus's page on Python external streams. The first one is its template, with a name and columns
-- filled in; its comments are the page's.
CREATE EXTERNAL STREAM IF NOT EXISTS stream_name (col_name1 int32)
AS $$
def read_fn():
    ...
def write_fn(col1, ...):
    ...
def init_fn(config): # optional
    ...
def deinit_fn(): # optional
    ...
$$
SETTINGS
    type = 'python', -- required
    read_function_name = '..', -- defaults to the stream name
    write_function_name = '..', -- defaults to read_function_name
    init_function_name = '..',
    init_function_parameters = '..', -- requires init_function_name
    deinit_function_name = '..',
    mode = 'auto' -- 'auto' (default), 'streaming', or 'batch'
;

CREATE EXTERNAL STREAM py_clock (tick uint32, label string)
AS $$
import time

def py_clock():
    n = 0
    while True:
        yield (n, "tick")
        n += 1
        time.sleep(1)
$$
SETTINGS
    type = 'python',
    mode = 'streaming';

CREATE EXTERNAL STREAM py_users (id int32, name string)
AS $$
import json
import urllib.request

def py_users():
    with urllib.request.urlopen("https://api.example.com/users") as r:
        payload = json.load(r)
    return [(u["id"], u["name"]) for u in payload]
$$
SETTINGS
    type = 'python',
    mode = 'batch';

CREATE EXTERNAL STREAM py_cookie_counter
(
    previous_cleanup_count int32,
    secret_flavor string
)
AS $$
import builtins, json

def open_bakery(config):
    builtins._tp_cookie_secret_flavor = json.loads(config)["flavor"]

def close_bakery():
    if hasattr(builtins, "_tp_cookie_secret_flavor"):
        del builtins._tp_cookie_secret_flavor

def serve_cookie_report():
    return [(0, getattr(builtins, "_tp_cookie_secret_flavor", ""))]
$$
SETTINGS
    type = 'python',
    read_function_name = 'serve_cookie_report',
    init_function_name = 'open_bakery',
    init_function_parameters = '{"flavor":"double-chocolate"}',
    deinit_function_name = 'close_bakery';

CREATE EXTERNAL STREAM py_user_count (total int64)
AS $$
import base64, urllib.request

def py_user_count():
    creds = base64.b64encode(
        f"{__timeplus_local_api_user}:{__timeplus_local_api_password}".encode()
    ).decode()
    req = urllib.request.Request(
        "http://localhost:8123/?query=SELECT+count()+FROM+table(users)",
        headers={"Authorization": f"Basic {creds}"},
    )
    with urllib.request.urlopen(req) as r:
        return [(int(r.read().strip()),)]
$$
SETTINGS
    type = 'python',
    mode = 'batch';
