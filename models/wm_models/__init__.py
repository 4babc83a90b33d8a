"""World models, behaviour and planners in PyTorch; knows neither ROS, zarr nor any simulator."""
