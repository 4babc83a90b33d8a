"""World models, behaviour and planners in PyTorch; knows neither ROS, nor zarr, nor any simulator."""
