# Copyright (C) nginx AI gateway authors

"""TAP of the scripts in this directory, which t/sdk.t reads."""

import os
import sys
import traceback

BASE = os.environ["BASE"]
UPSTREAM = os.environ["UPSTREAM"]
KEY = os.environ.get("KEY", "sk-client")
GOOD_KEY = os.environ.get("GOOD_KEY", "")

# a PNG of one pixel
PNG = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4"
       "nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC")
PNG_URL = "https://example.com/cat.png"

count = 0
tests = []


def model(name):
    """A model of the gateway that is served by the upstream under test."""
    return name + "-" + UPSTREAM


def ok(value, name, detail=None):
    global count
    count += 1
    print(("ok" if value else "not ok"), count, "-", name)
    if not value and detail is not None:
        for line in str(detail).splitlines()[-12:]:
            print("#", line)
    sys.stdout.flush()
    return value


def eq(got, want, name):
    return ok(got == want, name, "got:  %r\nwant: %r" % (got, want))


def raises(kind, call, name, **attrs):
    """The exception that call() raises is a kind, exactly."""
    try:
        call()
    except Exception as e:
        if not ok(type(e) is kind, name + ": " + kind.__name__,
                  "%s: %s" % (type(e).__name__, e)):
            return e
        for attr, want in attrs.items():
            eq(getattr(e, attr, None), want, name + ": " + attr)
        return e
    ok(False, name + ": " + kind.__name__, "nothing was raised")


def test(f):
    tests.append(f)
    return f


def run():
    for f in tests:
        if len(sys.argv) > 1 and f.__name__ not in sys.argv[1:]:
            continue
        print("#", f.__name__)
        try:
            f()
        except Exception:
            ok(False, f.__name__, traceback.format_exc())
    print("1..%d" % count)
