"""Takes an interface down and undoes what `up` did, or wg-quick's `up`."""

from wiresnake.config.uapi import wipe
from wiresnake.errors import HostError
from wiresnake.host import changes, linux
from wiresnake.quick import applied, config, hooks
from wiresnake.quick.config import QuickConfig
from wiresnake.quick.hooks import Say
from wiresnake.quick.save import assert_wireguard, save


def down(argument: str, say: Say, note: Say) -> None:
    """HostError, ConfigError or HookFailed. What a killed `up` or `down` left is mended too."""
    interface, path = config.find(argument)
    file = config.load(path)
    wipe(file.wg)
    if changes.mend(interface, say, note) and not linux.exists(interface):
        applied.forget(interface)
        return
    with changes.begin(interface, say, note) as change:
        assert_wireguard(interface)
        hooks.run(file.pre_down, interface, say)
        if file.save:
            _save(interface, path, file, say)
        hooks.stop_events(applied.load(interface))
        change.to(None)
        applied.forget(interface)
    # What they do stays done: there is no way back to the interface.
    hooks.run(file.post_down, interface, say)


def _save(interface: str, path: str, file: QuickConfig, say: Say) -> None:
    try:
        save(interface, path, file, say)
    except HostError as error:
        what = f"{error.strerror}. To take {interface} down without it, remove SaveConfig there"
        raise HostError(error.errno, what) from None
