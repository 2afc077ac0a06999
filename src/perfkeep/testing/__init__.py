"""What tests of programs that use perfkeep need: stated requirements, and a steady load.

Nothing here is imported by perfkeep itself.
"""
