"""A studio in a process of its own: `python served.py SETTINGS`, the settings as JSON.

What `suffuse studio` does, with limits that its flags do not reach. The address comes out first.
"""

import sys

from suffuse.studio.door import Door
from suffuse.studio.serve import address, listen, serve
from suffuse.studio.settings import Settings

if __name__ == "__main__":
    settings = Settings.model_validate_json(sys.argv[1])
    listening = listen("127.0.0.1", 0)
    door = Door(api_key=settings.api_key)
    serve(settings, door, listening, lambda: print(address(listening), flush=True))
