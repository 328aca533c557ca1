"""What in an image a network's answer comes from: occlusion, Grad-CAM, guided backpropagation."""
