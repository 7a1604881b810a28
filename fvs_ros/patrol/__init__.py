"""A world of robot patrols to learn from and to be tested on: rooms, objects, changes, questions with exact answers.

From a seed to an episode: `world.make_world` lays out the rooms and what lies in them, `episode.simulate` drives a
robot through and notes what its camera could see, `questions.ask` asks about it, `render.PatrolRenderer` draws the
frames, `bag.write_bag` records it all as a rosbag2. Only drawing needs MuJoCo (the `train` extra).
"""
