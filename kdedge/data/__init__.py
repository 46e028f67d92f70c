from kdedge.data.quick import load_task
