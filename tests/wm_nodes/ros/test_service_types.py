"""Requests with fields by name: values that fit a ROS type, and the errors of those that do not."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.srv import SetParameters
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import ByteMultiArray, Float32, Float32MultiArray, Float64, String
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectoryPoint

from wm_nodes.errors import UserError
from wm_nodes.ros.service_types import filled

LARGEST = 3.402823466e38


def transmitted(message):
    """Return a message after serialization and deserialization."""
    return deserialize_message(serialize_message(message), type(message))


@pytest.mark.parametrize("value", [0, 1.5, -LARGEST, LARGEST])
def test_a_number_that_fits_arrives_as_it_is(value):
    assert math.isclose(
        transmitted(filled(Float32(), {"data": value}, "x")).data, value, rel_tol=1e-7
    )
    assert transmitted(filled(Float64(), {"data": value}, "x")).data == value


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Float32, 1e39), (Float32, -3.41e38), (Float32, 10**39), (Float32, math.nan)]
    + [(kind, value) for kind in (Float32, Float64) for value in (math.inf, 10**400, True, "1")],
    ids=lambda value: getattr(value, "__name__", f"{value!r:.9}"),
)
def test_a_number_beyond_its_type_is_refused_in_one_line(kind, value):
    with pytest.raises(UserError, match=r"x\.data: got .*expected a finite number") as error:
        filled(kind(), {"data": value}, "x")
    assert "\n" not in str(error.value)


def test_numbers_in_lists_and_nested_messages_are_checked_too():
    with pytest.raises(UserError, match=r"x\.data\[1\]: got 1e\+39, expected .*3\.40282e\+38"):
        filled(Float32MultiArray(), {"data": [1.0, 1e39]}, "x")
    with pytest.raises(UserError, match=r"x\.time_from_start\.sec: .*from -2147483648 to"):
        filled(JointTrajectoryPoint(), {"time_from_start": {"sec": 2**31}}, "x")
    wrong = {"parameters": [{"name": "n", "value": {"double_array_value": [0.0, 10**400]}}]}
    with pytest.raises(UserError, match=r"x\.parameters\[0\]\.value\.double_array_value\[1\]"):
        filled(SetParameters.Request(), wrong, "x")


@pytest.mark.parametrize("text", ["", "speed", "\u00b0\U0001f916"])
def test_text_arrives_as_it_is(text):
    assert transmitted(filled(String(), {"data": text}, "x")).data == text


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_text_that_cannot_be_encoded_is_refused_in_one_line(text):
    with pytest.raises(UserError, match=r"x\.data: got .*UTF-8") as error:
        filled(String(), {"data": text}, "x")
    assert "\n" not in str(error.value) and str(error.value).encode()
    with pytest.raises(UserError, match=r"x\.parameters\[0\]\.name"):
        filled(SetParameters.Request(), {"parameters": [{"name": text}]}, "x")


@pytest.mark.parametrize("value", [0, 2, 255])
def test_octets_are_whole_numbers(value):
    assert transmitted(filled(DiagnosticStatus(), {"level": value}, "x")).level == bytes([value])
    assert transmitted(filled(ByteMultiArray(), {"data": [value, 1]}, "x")).data == [
        bytes([value]),
        b"\x01",
    ]


@pytest.mark.parametrize("value", [-1, 256, 1.0, True, "a", None])
def test_an_octet_that_is_none_is_refused_in_one_line(value):
    with pytest.raises(UserError, match=r"x\.level: got .*from 0 to 255") as error:
        filled(DiagnosticStatus(), {"level": value}, "x")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"x\.data\[0\]"):
        filled(ByteMultiArray(), {"data": [value]}, "x")


def test_an_unknown_field_is_named():
    with pytest.raises(UserError, match=r"got the field 'date', expected one of: data"):
        filled(SetBool.Request(), {"date": True}, "x")
