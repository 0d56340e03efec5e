"""How a device fails its owner: by refusing work, or by giving another result than the CPU."""


class DeviceFailed(Exception):
    """The device refused a piece of work or is gone; the same work has to be done on the CPU."""


class DeviceDiffers(DeviceFailed):
    """The device gave another result than the CPU: nothing that it says counts any more."""
