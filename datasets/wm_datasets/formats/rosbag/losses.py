"""What an import loses of a bag."""

from __future__ import annotations

from wm_datasets.formats.rosbag.bag import Bag
from wm_datasets.formats.rosbag.contents import Contents
from wm_datasets.formats.rosbag.mapping import Mapping
from wm_datasets.formats.rosbag.messages import dimensions


def losses_of(bag: Bag, mapping: Mapping, contents: Contents) -> list[str]:
    """Return what the log will not have of this bag, in words."""
    spec, own = contents.spec, contents.own_spec
    losses: list[str] = []
    used = contents.topics | ({mapping.step, mapping.spec} if contents.joins else set())
    if left := sorted(bag.types.keys() - used):
        losses.append(f"topics: {', '.join(left)}")
    if contents.scan is not None:
        losses += _resampled(mapping, contents)
        losses.append("digits beyond float32")
    losses += _names_left_out(bag, contents)
    for name in contents.cameras:
        if deep := mapping.depth_m(name):
            losses.append(f"depth of {name}: becomes 255 steps of grey, {deep[0]} to {deep[1]} m")
    if own is not None and (gone := sorted(own.sensors.keys() - spec.sensors.keys())):
        losses.append(f"sensors: {', '.join(gone)}")
    if own is not None and (gone := sorted(own.cameras.keys() - contents.cameras.keys())):
        losses.append(f"cameras that the robot has and the bag has not: {', '.join(gone)}")
    return losses


def _resampled(mapping: Mapping, contents: Contents) -> list[str]:
    """Topics of which a row keeps the latest message only."""
    assert contents.scan is not None
    takes, period = contents.takes(contents.scan), contents.spec.control_period_s
    losses = []
    for topic in sorted(contents.topics):
        rate = contents.scan.rate_hz(topic, takes)
        if rate * period > 1.05 or mapping.period_s:
            losses.append(
                f"{topic} at {rate:.3g} Hz: of it the latest at each row is kept "
                f"({1 / period:.3g} Hz), with the row's stamp"
            )
    return losses


def _names_left_out(bag: Bag, contents: Contents) -> list[str]:
    """Numbers of the mapped topics that no part takes, with how often they come."""
    losses = []
    for topic in sorted({part.topic for part in contents.names}):
        kept = {n for part, names in contents.names.items() if part.topic == topic for n in names}
        fields = [part.fields for part in contents.names if part.topic == topic]
        if contents.scan is not None:
            known, total = contents.scan.topics[topic].names, bag.counts[topic]
        elif contents.own_spec is None and bag.is_named(bag.types[topic]):
            known, total = {}, bag.counts[topic]
            for message in bag.messages([topic]):
                for name in dimensions(message.decode(), fields[0]):
                    known[name] = known.get(name, 0) + 1
        else:
            continue
        if gone := {name: count for name, count in known.items() if name not in kept}:
            listed = ", ".join(f"{name} ({count})" for name, count in gone.items())
            losses.append(f"numbers of {topic}, in how many of its {total} messages: {listed}")
    return losses
