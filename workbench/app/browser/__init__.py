"""The app in a browser on this machine: who may come in, the page, and the process that paints it."""
